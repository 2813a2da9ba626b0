//! Processors without vector kernels: everything is left to the scalar code.

use super::Isa;

pub(super) fn split2(_: Isa, _: bool, _: &[u8], _: &[u8], _: &mut [&mut [u8]; 2]) -> usize {
    0
}

pub(super) fn merge2(_: Isa, _: bool, _: &[u8], _: &[&[u8]; 2], _: &mut [u8]) -> usize {
    0
}

pub(super) fn split4(_: Isa, _: bool, _: &[u8], _: &[u8], _: &mut [&mut [u8]; 4]) -> usize {
    0
}

pub(super) fn merge4(_: Isa, _: bool, _: &[u8], _: &[&[u8]; 4], _: &mut [u8]) -> usize {
    0
}
