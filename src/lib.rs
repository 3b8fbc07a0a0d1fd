//! portolan: LoadBalancer IP address management, an eBPF Service datapath and a CNI for Kubernetes.
//!
//! Rooms, from the inside out: [`api`] (types and strings) and [`sys`] (the kernel, the only `unsafe`) know only
//! `portolan-core`; [`k8s`], [`node`], [`datapath`] and [`cni`] adapt; [`operator`], [`agent`] and [`cli`] wire.

pub mod agent;
pub mod api;
pub mod cli;
pub mod cni;
pub mod datapath;
pub mod k8s;
pub mod node;
pub mod operator;
pub mod sys;
pub mod telemetry;
