"""`muxly dev` and `muxly serve`: the processes of one Muxly, started, watched and stopped together."""
