//! zipllm keeps families of LLM checkpoints in one store, losslessly, in a fraction of the space.
//!
//! A map of the modules, lowest first; arrows point only downwards.
//!
//! | layer | modules |
//! |---|---|
//! | words | [`error`], [`hash`], [`name`], [`dtype`], [`nearest`], [`count`], [`threads`], [`buffers`], [`pieces`] |
//! | ground | [`kernel`]: byte planes, [`rans`]: context-modelled entropy coding, [`lowrank`]: prediction from a base and low-rank factors, in scalar code and SIMD; [`float`]: conversions; [`sketch`]: what is kept of a tensor to find its base |
//! | parts | [`codec`]: chunk ↔ payload; [`store`]: objects and manifests on disk; [`checkpoint`]: file → spans; [`source`]: model directories |
//! | knowledge | [`object_reader`], [`object_writer`], [`object_factors`], [`object_common`], [`object_prepare`]: objects with their bases; [`adapter`]: what a merge may be made of; [`pairing`]: which base; [`report`]: figures; [`survey`]: all models and objects at a glance |
//! | verbs | [`ingest`], [`restore`], [`check`], [`recode`], [`optimize`], [`estimate`], [`family`], [`list`], [`stats`], [`cat`], [`diff`], [`remove`], [`rename`], [`gc`], [`copy`], [`repair`], [`delete_source`] |
//! | shell | [`config`], [`cli`], [`hub`] (a feature): models from the Hugging Face Hub |
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod adapter;
pub mod buffers;
pub mod cat;
pub mod check;
pub mod checkpoint;
pub mod cli;
pub mod codec;
pub mod config;
pub mod copy;
pub mod count;
pub mod delete_source;
pub mod diff;
pub mod dtype;
pub mod error;
pub mod estimate;
pub mod family;
pub mod float;
pub mod gc;
pub mod hash;
#[cfg(feature = "hub")]
pub mod hub;
pub mod ingest;
pub mod kernel;
pub mod list;
pub mod lowrank;
pub mod name;
pub mod nearest;
pub mod object_common;
pub mod object_factors;
pub mod object_prepare;
pub mod object_reader;
pub mod object_writer;
pub mod optimize;
pub mod pairing;
pub mod pieces;
pub mod rans;
pub mod recode;
pub mod remove;
pub mod rename;
pub mod repair;
pub mod report;
pub mod restore;
pub mod sketch;
pub mod source;
pub mod stats;
pub mod store;
pub mod survey;
pub mod threads;

pub use error::{Error, ErrorKind, Result};
