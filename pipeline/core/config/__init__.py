"""The one configuration file: TOML -> frozen models, unknown keys refused, values never echoed in an error.

One file per part of the configuration; `load` reads a whole one.
"""

from pipeline.core.config.compute import ComputeConfig as ComputeConfig
from pipeline.core.config.condense import CONDENSE_TABLES as CONDENSE_TABLES
from pipeline.core.config.condense import Condense as Condense
from pipeline.core.config.condense import CondenseTable as CondenseTable
from pipeline.core.config.condense import PluginCondense as PluginCondense
from pipeline.core.config.condense import condense_table as condense_table
from pipeline.core.config.data import CohortConfig as CohortConfig
from pipeline.core.config.data import EmbeddedSource as EmbeddedSource
from pipeline.core.config.data import LongTableSource as LongTableSource
from pipeline.core.config.data import OtherSource as OtherSource
from pipeline.core.config.data import PhysioNet2012Source as PhysioNet2012Source
from pipeline.core.config.data import PrepareConfig as PrepareConfig
from pipeline.core.config.data import Source as Source
from pipeline.core.config.data import SplitConfig as SplitConfig
from pipeline.core.config.data import TablesSource as TablesSource
from pipeline.core.config.data import attribution_of as attribution_of
from pipeline.core.config.data import reader_options as reader_options
from pipeline.core.config.encode import ENCODE_TABLES as ENCODE_TABLES
from pipeline.core.config.encode import Encode as Encode
from pipeline.core.config.encode import EncodeTable as EncodeTable
from pipeline.core.config.encode import KeyedEncode as KeyedEncode
from pipeline.core.config.encode import PluginEncode as PluginEncode
from pipeline.core.config.group import GroupConfig as GroupConfig
from pipeline.core.config.load import AuditConfig as AuditConfig
from pipeline.core.config.load import Config as Config
from pipeline.core.config.load import ReleaseConfig as ReleaseConfig
from pipeline.core.config.load import UtilityConfig as UtilityConfig
from pipeline.core.config.load import load_config as load_config
from pipeline.core.config.load import parse_config as parse_config
from pipeline.core.config.night import DriftConfig as DriftConfig
from pipeline.core.config.night import NightConfig as NightConfig
from pipeline.core.config.tables import Model as Model
from pipeline.core.config.tables import Name as Name
from pipeline.core.config.tables import Plugin as Plugin
