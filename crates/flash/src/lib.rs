//! The flash backend trait with its power-cut contract, its backends, slots and boot control.
