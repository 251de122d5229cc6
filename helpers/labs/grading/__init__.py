"""Labs and grades: `python -m helpers.labs` and `python -m helpers.grade` use it.

masters and faults: the labs themselves · submissions: what is handed in · examine,
sandbox, namespaces, room, guard: running it safely · gradebook, feedback: the results.
"""
