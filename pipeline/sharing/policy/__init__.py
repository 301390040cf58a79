"""What may leave: policies, their rules, the gate, and the epsilon ledger."""
