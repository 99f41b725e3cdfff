//! The API as dropshot serves it: the operations of the trait, and the checks by two more methods.

use dropshot::{
    ApiDescription, ApiDescriptionBuildErrors, ApiDescriptionRegisterError, ApiEndpoint, ApiEndpointVersions,
};
use http::Method;

use super::context::Shared;
use super::handlers::Api;
use super::{QlusterApi, qluster_api_mod};

/// Why the API cannot be served: a defect in the trait or here, found by the tests.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// dropshot does not accept the trait.
    #[error("the operations of the API cannot be registered")]
    Trait(#[source] ApiDescriptionBuildErrors),
    /// dropshot does not accept a check by another method.
    #[error("the checks of load balancers cannot be registered")]
    Check(#[from] ApiDescriptionRegisterError),
}

/// All that is served.
///
/// # Errors
///
/// dropshot does not accept an operation.
pub fn routes() -> Result<ApiDescription<Shared>, RoutesError> {
    let mut api = qluster_api_mod::api_description::<Api>().map_err(RoutesError::Trait)?;
    add_methods(&mut api)?;
    Ok(api)
}

/// Adds HEAD and OPTIONS to each check, for load balancers that look at the code alone. They do what GET does; the body
/// of an answer to HEAD is not sent.
fn add_methods(api: &mut ApiDescription<Shared>) -> Result<(), ApiDescriptionRegisterError> {
    let all = || ApiEndpointVersions::All;
    let json = "application/json";
    for method in [Method::HEAD, Method::OPTIONS] {
        let id = |check: &str| format!("{check}_{}", method.as_str().to_ascii_lowercase());
        let by = || method.clone();
        api.register(ApiEndpoint::new(id("primary"), Api::primary, by(), json, "/primary", all()))?;
        api.register(ApiEndpoint::new(id("replica"), Api::replica, by(), json, "/replica", all()))?;
        api.register(ApiEndpoint::new(id("read_only"), Api::read_only, by(), json, "/read-only", all()))?;
        api.register(ApiEndpoint::new(id("health"), Api::health, by(), json, "/health", all()))?;
        api.register(ApiEndpoint::new(id("liveness"), Api::liveness, by(), json, "/liveness", all()))?;
        api.register(ApiEndpoint::new(id("readiness"), Api::readiness, by(), json, "/readiness", all()))?;
    }
    Ok(())
}
