"""The embedded control plane: the whole agent protocol from plain files, for one machine, labs and tests, and for nothing else.

The rules are pure: a frozen `World` and a `Moment` go in, the next `World` comes out (`world`, `documents`, `entries`, `applying`,
`signature`, `servers`, `expected`, `status`, `reported`, `deploying`, `placement`, `moving`, `ending`, `work`, `builds`, `lab_lists`).
`plane`, `edited`, `store`, `sealing`, `agent_http`, `lab_http`, `app` and `serving` read, write and answer.

Nothing outside this package but the command line imports it. Of the agent it uses the logger, the exceptions and the durable files.
"""
