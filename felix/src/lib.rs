//! felix
