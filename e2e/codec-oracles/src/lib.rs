//! e2e/codec-oracles
