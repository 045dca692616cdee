//! The only file that names `PyO3`: plain values in, plain values out, no logic.
//!
//! Nothing here waits: see rule R1 and [`crate::driver`]. The driver's thread never touches Python.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::dialect::{Dialect, mqtt};
use crate::driver::mqtt::{Broker, Files, Login, Tls};
use crate::driver::{Handle, Launch};
use crate::session::{
    Chamber, Config, Cutoff, OnExternalOff, OnExternalOn, Reason, Snapshot, Step, Surroundings,
    Wish,
};

/// Changes when the shim and the wheel would no longer understand each other.
const INTERFACE: u32 = 4;

/// What the guard's Python runs: without `site`, without environment, and without what klippy has
/// open. Loads this library and nothing else.
const GUARD: &str = "\
import os, sys
for name in os.listdir('/proc/self/fd'):
    if int(name) > 2:
        try:
            os.close(int(name))
        except OSError:
            pass
from importlib.machinery import ExtensionFileLoader, ModuleSpec
name, path = 'panda_breath_native._core', sys.argv[1]
loader = ExtensionFileLoader(name, path)
module = loader.create_module(ModuleSpec(name, loader, origin=path))
loader.exec_module(module)
os._exit(module._guard(sys.argv[3:]))
";

/// One device, as the Klipper module holds it.
#[pyclass(frozen, name = "Device")]
struct PyDevice(Handle);

#[pymethods]
impl PyDevice {
    /// Starts to look after a device; see `_core.pyi`.
    #[new]
    #[pyo3(signature = (*, name, host, port, device_id, max_target, stale_after, lost_after, lease, on_external_off, on_external_on, chamber=None, cutoff=None, follow=Vec::new(), drying_hours=6, mqtt=None, guard=None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "keyword arguments, one per option"
    )]
    fn new(
        py: Python<'_>,
        name: String,
        host: String,
        port: u16,
        device_id: Option<String>,
        max_target: u8,
        stale_after: f64,
        lost_after: f64,
        lease: f64,
        on_external_off: &str,
        on_external_on: &str,
        chamber: Option<(String, u8)>,
        cutoff: Option<(String, f64)>,
        follow: Vec<(f64, f64)>,
        drying_hours: u8,
        mqtt: Option<Mqtt>,
        guard: Option<Guard>,
    ) -> PyResult<Self> {
        let broker = match &mqtt {
            Some(mqtt) => Some(mqtt.broker(&host, port)?),
            None => None,
        };
        let config = Config {
            name,
            host,
            port,
            mqtt: mqtt.map(Mqtt::options).transpose()?,
            access: broker.as_ref().map_or(0, Broker::access),
            device_id,
            max_target,
            stale_after: millis("stale_after", stale_after)?,
            lost_after: millis("lost_after", lost_after)?,
            lease: millis("lease", lease)?,
            guard: guard.is_some(),
            guard_retry: millis(
                "guard retry",
                guard.as_ref().map_or(0.0, |guard| guard.retry),
            )?,
            chamber: chamber.map(|(sensor, max_boost)| Chamber { sensor, max_boost }),
            cutoff: cutoff.map(|(sensor, celsius)| Cutoff { sensor, celsius }),
            follow: follow
                .into_iter()
                .map(|(bed, chamber)| Step { bed, chamber })
                .collect(),
            drying_hours,
            on_external_off: match on_external_off {
                "accept" => OnExternalOff::Accept,
                "reassert" => OnExternalOff::Reassert,
                _ => return Err(PyValueError::new_err("on_external_off: accept or reassert")),
            },
            on_external_on: match on_external_on {
                "off" => OnExternalOn::Off,
                "allow" => OnExternalOn::Allow,
                _ => return Err(PyValueError::new_err("on_external_on: off or allow")),
            },
        };
        let launch = guard.map(|guard| guard.launch(py)).transpose()?;
        Ok(Self(
            Handle::open(config, broker, launch)
                .map_err(|error| PyOSError::new_err(error.to_string()))?,
        ))
    }

    /// Says what Klipper wants.
    #[pyo3(signature = (target, armed, ack, hand=0, dry=false))]
    fn want(&self, target: f64, armed: bool, ack: u32, hand: u32, dry: bool) {
        self.0.want(Wish {
            target,
            dry,
            armed,
            ack,
            hand,
        });
    }

    /// Says what Klipper wants, renews the lease, and fetches the state.
    #[pyo3(signature = (target, armed, ack, hand=0, dry=false))]
    fn drain(&self, target: f64, armed: bool, ack: u32, hand: u32, dry: bool) -> State {
        State(self.0.drain(Wish {
            target,
            dry,
            armed,
            ack,
            hand,
        }))
    }

    /// Says what Klipper's sensors say, and the bed's target.
    #[pyo3(signature = (chamber, cutoff, bed=None))]
    fn surround(&self, chamber: Option<(f64, f64)>, cutoff: Option<(f64, f64)>, bed: Option<f64>) {
        let sample = |(celsius, age)| Handle::sample(celsius, age);
        self.0.surround(Surroundings {
            chamber: chamber.map(sample),
            cutoff: cutoff.map(sample),
            bed,
        });
    }

    /// Why they allow no target now.
    #[pyo3(signature = (dry=false))]
    fn refusal(&self, dry: bool) -> Option<String> {
        self.0.refusal(dry)
    }

    /// The lines for people since the last call.
    fn events(&self) -> Vec<String> {
        self.0.events()
    }

    /// Whether the background thread has stopped turning.
    fn is_stuck(&self) -> bool {
        self.0.is_stuck()
    }

    /// Lets go of the device.
    fn close(&self) {
        self.0.close();
    }
}

/// The way to a device that is behind a broker; see `_core.pyi`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Mqtt {
    dialect: String,
    prefix: Option<String>,
    device_id: Option<String>,
    climate: String,
    sensor: String,
    topics: BTreeMap<String, String>,
    discovery_prefix: String,
    foreign_topics: bool,
    username: Option<String>,
    password: Option<String>,
    tls: bool,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

impl Mqtt {
    fn broker(&self, host: &str, port: u16) -> PyResult<Broker> {
        let files = || Files {
            ca: self.ca_file.clone(),
            cert: self.cert_file.clone(),
            key: self.key_file.clone(),
        };
        let tls = self.tls.then(|| Tls::load(files())).transpose();
        Ok(Broker {
            host: host.to_owned(),
            port,
            login: self.username.clone().map(|username| Login {
                username,
                password: self.password.clone().unwrap_or_default(),
            }),
            tls: tls.map_err(PyValueError::new_err)?,
        })
    }

    fn options(self) -> PyResult<mqtt::Options> {
        let mut topics = BTreeMap::new();
        for (name, topic) in self.topics {
            let role = mqtt::Role::ALL.iter().find(|role| role.name() == name);
            let role = role.ok_or_else(|| PyValueError::new_err(format!("no topic {name}")))?;
            topics.insert(*role, topic);
        }
        Ok(mqtt::Options {
            dialect: match self.dialect.as_str() {
                "auto" => None,
                "esphome" => Some(Dialect::Esphome),
                "stock_mqtt" => Some(Dialect::StockMqtt),
                _ => {
                    return Err(PyValueError::new_err(
                        "dialect: auto, esphome or stock_mqtt",
                    ));
                }
            },
            prefix: self.prefix,
            device_id: self.device_id,
            climate: self.climate,
            sensor: self.sensor,
            topics,
            discovery_prefix: self.discovery_prefix,
            foreign_topics: self.foreign_topics,
        })
    }
}

/// What the guard is to know; see `_core.pyi`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Guard {
    log: Option<PathBuf>,
    retry: f64,
}

impl Guard {
    fn launch(self, py: Python<'_>) -> PyResult<Launch> {
        let program: PathBuf = py.import("sys")?.getattr("executable")?.extract()?;
        let library: PathBuf = py
            .import("panda_breath_native._core")?
            .getattr("__file__")?
            .extract()?;
        let options = ["-I", "-S", "-c", GUARD].map(OsString::from);
        let mut arguments = options.to_vec();
        arguments.push(library.into());
        arguments.push("panda_breath_guard".into()); // for whoever wonders what this process is
        Ok(Launch {
            program,
            arguments,
            log: self.log,
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked"
)]
fn millis(option: &str, seconds: f64) -> PyResult<u64> {
    if (0.0..=1e9).contains(&seconds) {
        Ok((seconds * 1000.0) as u64)
    } else {
        Err(PyValueError::new_err(format!(
            "{option}: {seconds} is out of range"
        )))
    }
}

/// What the driver knows of a device; see `_core.pyi`.
#[pyclass(frozen)]
struct State(Snapshot);

#[pymethods]
impl State {
    #[getter]
    fn link(&self) -> &'static str {
        self.0.link.name()
    }
    #[getter]
    fn reading_number(&self) -> u64 {
        self.0.reading.map_or(0, |reading| reading.number)
    }
    #[getter]
    fn temperature(&self) -> Option<f64> {
        self.0.reading.map(|reading| reading.celsius)
    }
    #[getter]
    fn reading_age(&self) -> Option<f64> {
        self.0.reading.map(|reading| Handle::age(reading.at))
    }
    #[getter]
    fn lost(&self) -> bool {
        self.0.lost
    }
    #[getter]
    fn device_on(&self) -> Option<bool> {
        self.0.device_on
    }
    #[getter]
    fn device_target(&self) -> Option<f64> {
        self.0.device_target
    }
    #[getter]
    fn boost(&self) -> u8 {
        self.0.boost
    }
    #[getter]
    fn follow(&self) -> Option<(f64, u32)> {
        let follow = self.0.follow?;
        Some((follow.target, follow.hand))
    }
    #[getter]
    fn target_limit(&self) -> Option<f64> {
        self.0.target_limit
    }
    #[getter]
    fn dialect(&self) -> Option<&'static str> {
        self.0.dialect.map(Dialect::name)
    }
    #[getter]
    fn mode(&self) -> Option<&'static str> {
        self.0.mode.map(crate::dialect::Mode::name)
    }
    #[getter]
    fn drying(&self) -> Option<bool> {
        self.0.drying
    }
    /// Counts down between the device's words, which come only when something happens.
    #[getter]
    fn remaining_seconds(&self) -> Option<f64> {
        let (seconds, at) = self.0.remaining?;
        let gone = if self.0.drying == Some(true) {
            Handle::age(at)
        } else {
            0.0
        };
        Some((f64::from(seconds) - gone).max(0.0))
    }
    #[getter]
    fn firmware_version(&self) -> Option<&str> {
        self.0
            .firmware
            .as_ref()
            .map(crate::dialect::Firmware::as_str)
    }
    #[getter]
    fn device_id(&self) -> Option<String> {
        self.0.identity.map(crate::dialect::Identity::last4)
    }
    #[getter]
    fn fault(&self) -> Option<String> {
        self.0.fault.as_ref().map(crate::session::Trouble::text)
    }
    #[getter]
    fn cannot_heat(&self) -> bool {
        let fault = self.0.fault.as_ref();
        fault.is_some_and(crate::session::Trouble::blocks_heat)
    }
    #[getter]
    fn external_off(&self) -> bool {
        self.0.external_off
    }
    #[getter]
    fn forced_offs(&self) -> u32 {
        self.0.forced_offs
    }
    #[getter]
    fn failures(&self) -> u32 {
        self.0.failures
    }
    #[getter]
    fn forced_off(&self) -> Option<&str> {
        self.0.forced_off.as_ref().map(|forced| &*forced.text)
    }
    #[getter]
    fn dried(&self) -> bool {
        let forced = self.0.forced_off.as_ref();
        forced.is_some_and(|forced| forced.reason == Reason::Dried)
    }
    #[getter]
    fn reconnects(&self) -> u32 {
        self.0.reconnects
    }
    #[getter]
    fn ignored(&self) -> u64 {
        self.0.ignored
    }
    #[getter]
    fn off_known(&self) -> bool {
        self.0.off_known
    }
    #[getter]
    fn last_error(&self) -> Option<&str> {
        self.0.last_error.as_deref()
    }
}

/// The guard's process; returns its exit status.
#[pyfunction]
#[pyo3(name = "_guard")]
fn guard(py: Python<'_>, arguments: Vec<OsString>) -> i32 {
    py.detach(|| crate::driver::guard::run(arguments))
}

/// The `panda-breath` command; returns its exit status.
#[pyfunction]
fn main(py: Python<'_>) -> PyResult<i32> {
    let sys = py.import("sys")?;
    let arguments: Vec<OsString> = sys.getattr("argv")?.extract()?;
    let prefix = sys.getattr("prefix")?.extract()?;
    let module: PathBuf = py
        .import("panda_breath_native")?
        .getattr("__file__")?
        .extract()?;
    let site = module.ancestors().nth(2).unwrap_or(&module).to_owned();
    let command = arguments.first().map(PathBuf::from).unwrap_or_default();
    let command = std::path::absolute(&command).unwrap_or(command);
    let python = crate::cli::install::Python {
        command,
        prefix,
        site,
    };
    // Python's handler would only be noticed when we return; the default ends us at once.
    let signal = py.import("signal")?;
    signal.call_method1(
        "signal",
        (signal.getattr("SIGINT")?, signal.getattr("SIG_DFL")?),
    )?;
    Ok(py.detach(|| crate::cli::run_in(Some(python), arguments.into_iter())))
}

#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("INTERFACE", INTERFACE)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<PyDevice>()?;
    module.add_class::<State>()?;
    module.add_function(wrap_pyfunction!(guard, module)?)?;
    module.add_function(wrap_pyfunction!(main, module)?)
}
