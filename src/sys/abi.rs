//! Map keys and values as aya wants them.

/// A key or value of the ABI. aya moves such values as raw bytes; all structs of `portolan-ebpf` are plain data without
/// padding, which that crate asserts.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abi<T>(pub T);

// SAFETY: only the ABI's structs and integers are wrapped; they are `repr(C)`, without padding, and valid for any bits.
unsafe impl<T: Copy + 'static> aya::Pod for Abi<T> {}
