//! The room as a whole: files in, policies and diagnostics out.

mod errors;
mod properties;
mod reload;
mod report;
mod source;
mod tunnel_errors;
mod warnings;
