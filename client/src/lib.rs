//! A typed client for the REST API of qluster.
