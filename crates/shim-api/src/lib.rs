//! shim-api
