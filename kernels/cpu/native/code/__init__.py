"""What is compiled into the library: Python and vector IR that numba makes machine code of, once per machine.

Importing a module of this package imports numba. A process whose library is compiled already imports none of them.
"""
