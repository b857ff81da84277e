//! Everything that happens at run time: the pools of instances and their supervisor, what calls them (requests, jobs,
//! ticks), and the admin API.
//!
//! A call's way: `ingress` or a `trigger` -> the type's `pool` lends an instance -> the engine's
//! `Instance::call_*` -> the instance goes back. A change's way: [`admin`] decodes a request to an action -> the
//! `supervisor` decides, and is the only one who changes counts.

pub mod admin;
mod capacity;
mod deaths;
mod event;
mod feed;
mod few_lines;
mod grants;
mod health;
mod history;
mod host;
mod ingress;
mod logs;
mod measures;
mod members;
mod output;
mod places;
mod plan;
mod pool;
mod program;
mod rare_lines;
mod rates;
mod release;
mod services;
mod share;
mod state_dir;
mod supervisor;
mod systemd;
mod telemetry;
mod traces;
mod trigger;
mod way;

pub use admin::AdminToken;
pub use capacity::{TooMany, capacity_warnings, check_capacity, make_room_for_connections};
pub use host::{
    Host, HostOptions, Lost, Progress, StartError, Step, Stopped, backup_store, enqueue_without_host,
};
pub use ingress::{HandedOver, ServedAt};
pub use logs::{HostLine, HostLog, LogFormat, render};
pub use output::{Output, Source, until, write_all};
pub use plan::{Plan, PlanError, PlanProblem, PlannedType, Surroundings, Understood, memory_problem};
pub use program::{OneOff, ProgramEnd, run_program};
pub use release::{LiveRelease, StoredReleases};
pub use services::GrantedBy;
pub use state_dir::{
    Holder, StateDirError, holder, is_in_use, is_trusted_user, refuse_directory_of_other, running_state_dir,
    socket_path,
};
pub use supervisor::unknown_type;
pub use systemd::{Reloading, ServiceManager};
pub use telemetry::{TelemetryError, TelemetrySettings};
pub use trigger::release::ReleaseFailed;
