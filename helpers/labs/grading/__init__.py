"""From a folder of submissions to grades; nothing that is handed in does any harm.

masters and faults: the labs themselves · submissions: what is handed in · examine,
sandbox, namespaces, room, guard: running it safely · gradebook, feedback: the results.
"""
