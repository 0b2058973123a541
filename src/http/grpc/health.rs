//! `grpc.health.v1`: whether requests should be sent here, as `/health/ready` tells.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::SERVICES;
use crate::http::state::{AppState, Phase};

/// How often it is looked whether the answer is another one.
const LOOK: Duration = Duration::from_millis(500);

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Readiness(pub(super) AppState);

impl Readiness {
    /// The status of a service; of the server, if its name is empty. None if there is no such service.
    fn of(&self, service: &str) -> Option<ServingStatus> {
        let is_known = service.is_empty() || SERVICES.contains(&service);
        is_known.then(|| match self.0.ready() {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        })
    }
}

#[tonic::async_trait]
impl Health for Readiness {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.of(&request.get_ref().service);
        let status = status.ok_or_else(|| Status::not_found("there is no such service"))?;
        Ok(Response::new(response(status)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (readiness, service) = (self.clone(), request.into_inner().service);
        let told = None;
        let statuses = stream::try_unfold((readiness, service, told), next_status);
        Ok(Response::new(Box::pin(statuses)))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    let status = status.into();
    HealthCheckResponse { status }
}

type Watching = (Readiness, String, Option<ServingStatus>);

/// Waits until a status is another one than was told last.
async fn next_status(
    (readiness, service, told): Watching,
) -> Result<Option<(HealthCheckResponse, Watching)>, Status> {
    loop {
        let status = readiness.of(&service);
        let status = status.unwrap_or(ServingStatus::ServiceUnknown);
        if told != Some(status) {
            return Ok(Some((response(status), (readiness, service, Some(status)))));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = readiness.0.reached(Phase::Draining) => {
                return Err(Status::unavailable("the server is shutting down"));
            }
        }
    }
}
