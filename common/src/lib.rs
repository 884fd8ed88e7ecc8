#![no_std]
//! What the XDP programs and user space share.
