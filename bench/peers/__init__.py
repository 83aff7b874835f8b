"""
Other systems for durable execution, measured beside ours in the same rounds: ``make bench PEERS=1``.

Each is installed from its registry into a folder of its own and runs in processes of its own, so none is a dependency
of this project.

Files::

    install.py       their environments, in ``.cache/peers``
    beside.py        runs the program of a peer, and asks it for rounds
    program.py       the workloads W1 to W6; it runs in the peer's environment, as do those below
    dbos_peer.py     DBOS Transact
    absurd_peer.py   absurd
    restate_peer.py  Restate
"""
