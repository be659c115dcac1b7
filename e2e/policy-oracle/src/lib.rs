//! e2e/policy-oracle
