//! Upstream groups, for http and stream alike.

/// All groups of a block.
#[derive(Default)]
pub struct Groups {}

/// One attempt at a peer, for `$upstream_*` and the log.
#[derive(Clone, Debug, Default)]
pub struct UpstreamState {}
