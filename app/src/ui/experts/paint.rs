//! The grid's pixels: a callback that reads the numbers on the GPU, or a texture where it cannot.
