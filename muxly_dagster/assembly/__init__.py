"""A declared project made ready to run: every name resolved to a connector, a transform, a rule set or a destination."""

from muxly_dagster.assembly.choice import parents, select, table_named, upstream
from muxly_dagster.assembly.load import assemble, load_assembly
from muxly_dagster.assembly.parts import Assembly, Pull, Target, Transform

__all__ = ["Assembly", "Pull", "Target", "Transform", "assemble", "load_assembly", "parents", "select", "table_named", "upstream"]
