//! Parts that several of the programs in `bin` use.

pub mod http;
