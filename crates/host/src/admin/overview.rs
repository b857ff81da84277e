//! `GET /v1/overview`: how things stand at a glance, for those who look again and again. All who ask within a second get the
//! same look, and only the instances that they want.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::api::{CrashView, FormationView, InstanceView, OverviewView};
use super::{Admin, ApiError, Shared};

/// How long a look is good for.
const FRESH_FOR: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OverviewQuery {
    #[serde(rename = "type")]
    process: Option<String>,
    #[serde(default)]
    after: u64,
}

/// The last look, and the lock that has those who want the next one wait for it together.
#[derive(Default)]
pub(crate) struct Looks(Mutex<Option<(Instant, Arc<Look>)>>);

/// How things stood, with what is long beside it.
struct Look {
    formation: FormationView,
    /// The instances and the last crash of each type.
    long: Vec<(Vec<InstanceView>, Option<CrashView>)>,
}

#[utoipa::path(
    get,
    path = "/v1/overview",
    tag = "host",
    operation_id = "get_overview",
    summary = "How things stand at a glance, and the last hour.",
    params(("type" = Option<String>, Query, description = "With the instances of this type, and how its last one died"), ("after" = Option<u64>, Query, description = "The number of the newest sample that the client has")),
    responses((status = 200, description = "The formation and the samples behind that one", body = OverviewView))
)]
pub(super) async fn overview(
    State(admin): Shared,
    query: Result<Query<OverviewQuery>, QueryRejection>,
) -> Result<Json<OverviewView>, ApiError> {
    let OverviewQuery { process, after } = read(query)?;
    let look = admin.looks.fresh(&admin).await?;
    let mut formation = look.formation.clone();
    for (view, (instances, crash)) in formation.types.iter_mut().zip(&look.long) {
        if process.as_deref() == Some(&*view.process) {
            view.instances.clone_from(instances);
            view.last_crash.clone_from(crash);
        }
    }
    Ok(Json(OverviewView { formation, history: admin.history.view(after) }))
}

pub(super) fn read(query: Result<Query<OverviewQuery>, QueryRejection>) -> Result<OverviewQuery, ApiError> {
    let Query(query) = query.map_err(|rejected| ApiError::bad(rejected.body_text()))?;
    Ok(query)
}

impl Looks {
    async fn fresh(&self, admin: &Admin) -> Result<Arc<Look>, ApiError> {
        let mut last = self.0.lock().await;
        if let Some((at, look)) = &*last
            && at.elapsed() < FRESH_FOR
        {
            return Ok(look.clone());
        }
        let mut formation = admin.formation().await?;
        let long = formation.types.iter_mut();
        let long = long.map(|view| (std::mem::take(&mut view.instances), view.last_crash.take())).collect();
        let look = Arc::new(Look { formation, long });
        *last = Some((Instant::now(), look.clone()));
        Ok(look)
    }
}
