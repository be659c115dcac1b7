//! The world: sockets, files, clocks, the kernel.
