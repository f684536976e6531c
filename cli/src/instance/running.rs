//! Brings an instance up in order (backend, demo, harness), answers what is
//! asked of it, and takes it down in the opposite order. Each later step of
//! the start undoes the earlier ones when it fails: dropping them is enough.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::levels::Levels;
use super::plan::{self, Load, Loaded, Places};
use super::spec::{BackendSpec, PluginSpec, Spec, Target, Upstream};
use super::status::{Counters, InstanceStatus, PluginStatus, ReloadRequest, Reloaded};
use crate::backend::{Backend, Bounds, Store};
use crate::demo::Demo;
use crate::error::{Error, Result};
use crate::harness::{Embedded, Envoy, Filter, Harness, Kind, Proof, Topology, find_envoy};
use crate::logs::{Level, LogHub};
use crate::state::{Child, Home, InstanceDir, Record};
use crate::trace::Trace;

/// The ports that are taken when they are free and the user named none.
const INBOUND_PORT: u16 = 10_000;
const OUTBOUND_PORT: u16 = 10_001;
/// How long `down` waits for streams and for exports.
const DRAIN: Duration = Duration::from_secs(10);

/// A running instance.
pub struct Instance {
    pub(super) spec: Spec,
    home: Home,
    dir: InstanceDir,
    places: Places,
    /// Everything but filters and listeners matters to a check off to the side.
    aside: Topology,
    pub logs: LogHub,
    pub(super) backend: Option<Backend>,
    pub(super) demo: Option<Demo>,
    pub(super) harness: Box<dyn Harness>,
    pub(super) levels: Levels,
    pub(super) plugins: Mutex<Vec<Slot>>,
    child: Option<Child>,
}

/// A plugin as it is served now.
pub(super) struct Slot {
    pub(super) spec: PluginSpec,
    pub(super) loaded: Loaded,
    filters: Vec<Filter>,
    pub(super) load: Load,
}

impl Instance {
    /// Starts everything, or nothing. Warnings are for the user to read.
    pub async fn start(
        spec: Spec,
        home: &Home,
        dir: InstanceDir,
        trace: Option<Trace>,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let logs = LogHub::default();
        let mut loaded = Vec::new();
        for plugin in &spec.plugins {
            loaded.push(plan::load(plugin, warnings)?);
        }
        let backend = match &spec.backend {
            BackendSpec::Local { listen } => {
                let store = Arc::new(Store::open(&dir.database(), Bounds::default())?);
                Some(Backend::start(*listen, store).await?)
            }
            BackendSpec::Remote { .. } => None,
        };
        let demo = if needs_demo(&spec) { Some(Demo::start().await?) } else { None };
        let places = places(&spec, backend.as_ref(), demo.as_ref())?;
        let mut slots = Vec::new();
        for (plugin, loaded) in spec.plugins.iter().zip(loaded) {
            let load = Load { number: 1, ..Load::default() };
            let filters = plan::filters(plugin, &loaded, &spec, &places, load)?;
            slots.push(Slot { spec: plugin.clone(), loaded, filters, load });
        }
        let filters = slots.iter().flat_map(|slot| slot.filters.clone()).collect();
        let mut topology = plan::topology(&spec, &places, filters, trace);
        let mut begun = begin(&spec, topology.clone(), home, &dir, &logs).await;
        if spec.listen.is_none() && matches!(begun, Err(Error::PortInUse { .. })) {
            // Somebody took the well-known port in this very moment: any will do.
            topology.listeners.iter_mut().for_each(|listener| listener.address.set_port(0));
            begun = begin(&spec, topology.clone(), home, &dir, &logs).await;
        }
        let (harness, child) = begun?;
        if let (Kind::Embedded, Some(own)) = (spec.harness, &topology.own) {
            let keys = Embedded::unheeded(own).into_iter();
            warnings.extend(keys.map(|key| format!("`{key}` has no effect on the embedded harness")));
        }
        let aside = Topology { filters: Vec::new(), trace: None, ..topology };
        if let (Some(demo), Some(outbound)) = (&demo, harness.addresses().outbound) {
            demo.call_inventory_at(outbound);
        }
        Ok(Self {
            spec,
            home: home.clone(),
            dir,
            places,
            aside,
            logs,
            backend,
            demo,
            harness,
            levels: Levels::default(),
            plugins: Mutex::new(slots),
            child,
        })
    }

    /// Says on disk that it runs; commands find it from then on.
    pub fn announce(&self) -> Result<()> {
        self.dir.write_record(&Record {
            name: self.spec.name.clone(),
            pid: std::process::id(),
            harness: self.spec.harness.name().into(),
            socket: self.dir.socket(),
            version: env!("CARGO_PKG_VERSION").into(),
            children: self.child.iter().cloned().collect(),
        })
    }

    pub fn dir(&self) -> &InstanceDir {
        &self.dir
    }

    /// The captured exchanges; none when they go to another backend.
    pub fn backend(&self) -> Result<&Backend> {
        self.backend
            .as_ref()
            .ok_or_else(|| Error::Usage("this instance sends its exchanges to another backend: ask there".into()))
    }

    pub async fn status(&self) -> Result<InstanceStatus> {
        let addresses = self.harness.addresses();
        let url = |address: Option<SocketAddr>| address.map(|a| format!("http://{a}"));
        let mut proxies = self.harness.proxies().await?;
        let state = if proxies.iter().all(|p| p.state == "serving") { "running" } else { "degraded" };
        let plugins = self.plugins.lock().await;
        for served in proxies.iter_mut().flat_map(|proxy| &mut proxy.plugins) {
            // A proxy knows the module; the image it came in is known here.
            let slot = plugins.iter().find(|slot| slot.loaded.module.digest == served.plugin_digest);
            served.image_digest = slot.and_then(|slot| slot.spec.source.image_digest().cloned());
        }
        Ok(InstanceStatus {
            name: self.spec.name.clone(),
            harness: self.harness.kind().name().into(),
            state: state.into(),
            pid: std::process::id(),
            proxy_url: url(addresses.inbound),
            outbound_url: url(addresses.outbound),
            admin_url: url(addresses.admin),
            backend_url: Some(self.places.backend.url()),
            log_level: self.spec.log_level,
            serving: self.backend.as_ref().and_then(|backend| backend.answers.serving()),
            plugins: plugins.iter().map(Slot::status).collect(),
            counters: if state == "running" {
                self.counters().await?
            } else {
                self.counters().await.unwrap_or_default()
            },
            proxies,
        })
    }

    pub async fn counters(&self) -> Result<Counters> {
        let mut counters = Counters::from_stats(&self.harness.stats().await?);
        if let Some(backend) = &self.backend {
            let counts = backend.store.counts();
            counters.stored = counts.stored;
            counters.evicted = counts.evicted;
        }
        Ok(counters)
    }

    /// Replaces one plugin; on an error the old one serves on.
    pub async fn reload(&self, request: ReloadRequest) -> Result<Reloaded> {
        let started = Instant::now();
        let mut plugins = self.plugins.lock().await;
        let known = plugins.iter().map(|slot| slot.spec.name.clone()).collect();
        let slot = plugins
            .iter_mut()
            .find(|slot| slot.spec.name == request.plugin)
            .ok_or(Error::UnknownPlugin { name: request.plugin.clone(), known })?;
        let mut spec = slot.spec.clone();
        if let Some(source) = request.source {
            spec.source = source;
        }
        if request.config.is_some() {
            spec.config = request.config;
        }
        let mut warnings = Vec::new();
        let loaded = plan::load(&spec, &mut warnings)?;
        let (old, new) = (slot.loaded.module.digest.clone(), loaded.module.digest.clone());
        let changed = request.force || old != new || loaded.configuration != slot.loaded.configuration;
        let mut proxies = if changed {
            let generation = slot.load.generation + u32::from(request.force);
            let load = Load { number: slot.load.number + 1, generation, ..slot.load };
            self.replace(slot, spec, loaded, load).await?
        } else {
            slot.spec = spec;
            Vec::new()
        };
        let image_digest = slot.spec.source.image_digest().cloned();
        proxies.iter_mut().for_each(|proof| proof.image_digest.clone_from(&image_digest));
        Ok(Reloaded {
            plugin: request.plugin,
            old,
            new,
            image_digest,
            changed,
            took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            rolled_back: false,
            proxies,
            warnings,
        })
    }

    /// Starts or stops the demo's inventory.
    pub async fn run_inventory(&self, runs: bool) -> Result<()> {
        let demo = self.demo.as_ref().ok_or_else(|| Error::Usage("no demo application runs here".into()))?;
        demo.run_inventory(runs).await
    }

    /// Puts a plugin in the place of another; on an error the old one serves on.
    pub(super) async fn replace(
        &self,
        slot: &mut Slot,
        spec: PluginSpec,
        loaded: Loaded,
        load: Load,
    ) -> Result<Vec<Proof>> {
        let filters = plan::filters(&spec, &loaded, &self.spec, &self.places, load)?;
        if self.harness.kind() != Kind::Embedded {
            check(filters.clone(), &self.aside, &self.home, &self.logs).await?;
        }
        let proofs = self.harness.reload(filters.clone()).await?;
        let (old, new) = (&slot.loaded.module.digest, &loaded.module.digest);
        self.logs.own(Level::Info, format!("reloaded `{}`: {old} -> {new}", spec.name));
        *slot = Slot { spec, loaded, filters, load };
        Ok(proofs)
    }

    /// Drains, then stops; the final counters hold for everything that was served.
    pub async fn stop(&self) -> Counters {
        if let Err(error) = self.harness.drain(DRAIN).await {
            self.logs.own(Level::Warning, format!("draining: {error}"));
        }
        let counters = self.counters().await.unwrap_or_default();
        self.harness.stop().await;
        if let Some(demo) = &self.demo {
            demo.stop();
        }
        counters
    }
}

impl Slot {
    fn status(&self) -> PluginStatus {
        PluginStatus {
            name: self.spec.name.clone(),
            role: self.spec.role,
            path: self.spec.module_path().cloned(),
            plugin_digest: self.loaded.module.digest.clone(),
            source: self.spec.source.clone(),
            config: self.spec.config.clone(),
        }
    }
}

/// Starts the harness; with a process of its own, what identifies that.
async fn begin(
    spec: &Spec,
    topology: Topology,
    home: &Home,
    dir: &InstanceDir,
    logs: &LogHub,
) -> Result<(Box<dyn Harness>, Option<Child>)> {
    match spec.harness {
        Kind::Embedded => {
            Ok((Box::new(Embedded::start(topology, home.cache().join("modules"), logs.clone()).await?), None))
        }
        Kind::Envoy => {
            let binary = find_envoy(spec.envoy_path.as_deref()).await?;
            check(topology.filters.clone(), &topology, home, logs).await?;
            let envoy = Envoy::start(binary, topology, dir.file("envoy"), logs.clone()).await?;
            let child = envoy.child();
            Ok((Box::new(envoy), Some(child)))
        }
        Kind::Docker => {
            check(topology.filters.clone(), &topology, home, logs).await?;
            let envoy = Envoy::start_in_docker(&spec.image, topology, dir.file("envoy"), logs.clone()).await?;
            let child = envoy.child();
            Ok((Box::new(envoy), Some(child)))
        }
    }
}

/// A plugin that the embedded host refuses never reaches another harness: its
/// own words explain more than Envoy's.
async fn check(filters: Vec<Filter>, like: &Topology, home: &Home, logs: &LogHub) -> Result<()> {
    // Its lines are quoted when it fails and nobody's when it passes.
    Embedded::check(filters, like, home.cache().join("modules"), LogHub::default()).await.inspect_err(|error| {
        logs.own(Level::Error, error.to_string());
    })
}

fn needs_demo(spec: &Spec) -> bool {
    let own = |upstream: &Upstream| !matches!(upstream, Upstream::Url(_));
    own(&spec.upstream)
        || spec.outbound.as_ref().is_some_and(own)
        || spec.clusters.iter().any(|(_, upstream)| own(upstream))
}

fn places(spec: &Spec, backend: Option<&Backend>, demo: Option<&Demo>) -> Result<Places> {
    let target = |upstream: &Upstream, outbound: bool| -> Result<Target> {
        let own = demo.ok_or_else(|| Error::Instance { reason: "its own upstream does not run".into() });
        Ok(match upstream {
            Upstream::Url(target) => target.clone(),
            Upstream::BuiltIn => loopback_target(own?.httpbin().port()),
            Upstream::Demo if outbound => loopback_target(own?.inventory().port()),
            Upstream::Demo => loopback_target(own?.shop().port()),
        })
    };
    let (backend, key) = match (&spec.backend, backend) {
        (BackendSpec::Remote { target, key_file }, _) => {
            (target.clone(), key_file.as_deref().map(plan::read_key).transpose()?)
        }
        (BackendSpec::Local { .. }, Some(backend)) => (loopback_target(backend.address.port()), None),
        (BackendSpec::Local { .. }, None) => return Err(Error::Instance { reason: "its backend does not run".into() }),
    };
    let outbound = match spec.listen {
        None => free_or_any(OUTBOUND_PORT),
        Some(inbound) => SocketAddr::new(inbound.ip(), 0),
    };
    Ok(Places {
        inbound: spec.listen.unwrap_or_else(|| free_or_any(INBOUND_PORT)),
        outbound,
        upstream: target(&spec.upstream, false)?,
        outbound_upstream: spec.outbound.as_ref().map(|upstream| target(upstream, true)).transpose()?,
        clusters: spec
            .clusters
            .iter()
            .map(|(name, upstream)| Ok((name.clone(), target(upstream, false)?)))
            .collect::<Result<_>>()?,
        backend,
        key,
    })
}

fn loopback_target(port: u16) -> Target {
    Target { tls: false, host: Ipv4Addr::LOCALHOST.to_string(), port, path: String::new() }
}

/// The well-known port when nobody has it, so that URLs in notes and scripts
/// stay the same; else any free one.
fn free_or_any(port: u16) -> SocketAddr {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if TcpListener::bind(wanted).is_ok() { wanted } else { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
}
