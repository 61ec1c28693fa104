"""What must survive: crashes, power cuts, failing disks, other processes, hostile input; shown by injecting them.

The same code runs at small sizes in every test run and at full size under ``tox -e faults``, see ``sizes``.
"""
