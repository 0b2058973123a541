//! One file per wire format: its request, response and error bodies, and their mapping.

mod detail;
pub(super) mod native;
pub(super) mod nim;
pub(super) mod tei;
pub(super) mod voyage;
