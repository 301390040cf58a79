"""What goes out of a workspace: withdrawn people and all that was made with them, what nobody needs any more."""
