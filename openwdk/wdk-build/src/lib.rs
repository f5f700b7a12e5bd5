//! wdk-build
