"""The outside world: looks, acts, waits and reports, and decides nothing that `core` can decide.

Floors, each importing only what lies below it: `adapters` (one module per outside component), `gather` and `perform`, `loops`, `daemon`,
`cli`. `local_plane` stands beside them: a whole control plane for one machine or a lab.
"""
