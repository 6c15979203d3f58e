//! What a telemetry agent and whoever asks it say to each other: JSON, one object a line.
//!
//! An agent speaks first ([`Say::Hello`]). What it reads goes into its spool, a file of lines, and from
//! there to whoever asks: [`Ask::From`] names the byte to begin at, so who lost a connection asks for what
//! it has not seen and loses nothing.
//!
//! **Invariant.** No line makes a reader panic: what cannot be read is told apart and skipped.

use super::{Absent, ByDevice, Device, Quantity, Reading, Telemetry, TelemetryPlan, series_of};
use crate::plan::Role;
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Number of this protocol; another is not spoken to.
pub const PROTOCOL: u32 = 3;
/// Longer lines are not read.
pub const LONGEST_LINE: usize = 1 << 20;
/// What an agent is called among the processes of its machine.
pub const AGENT_NAME: &str = "telemetry agent";

/// What is absent where nothing of a machine is read.
pub const THE_MACHINE: &str = "the machine";
/// The same of a pod.
pub const THE_POD: &str = "the pod";

/// What is absent where nothing of it is read.
pub const fn whole(pod: Option<&WatchedPod>) -> &'static str {
    match pod {
        Some(_) => THE_POD,
        None => THE_MACHINE,
    }
}

/// What an agent is to watch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watching {
    /// What readings call its machine.
    pub host: String,
    /// What is read, and how often.
    pub plan: TelemetryPlan,
    /// `NAME=value` in the environment of each process of the run.
    pub marker: String,
    /// Name of the variable that holds a process's id in the plan.
    pub id_variable: String,
    /// What the processes of the plan do, by their ids.
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
    /// Ids of those that are on other hosts: containers of one machine may see each other's processes.
    #[serde(default)]
    pub elsewhere: BTreeSet<String>,
    /// Pids of processes by their ids, as they were started: one that gave itself a title has no mark any more.
    #[serde(default)]
    pub started: BTreeMap<String, u32>,
    /// Its machine is a pod of this kind, of which no more is read than what is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<WatchedPod>,
}

/// A pod from inside of one of its containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedPod {
    /// The node that it is on.
    pub node: String,
    /// The container that an agent is in; of others it sees nothing.
    pub container: String,
    /// What it works for; absent where it is no instance, as a frontend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// To an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Answered at once with its clock.
    Ping {
        /// Comes back with the answer.
        n: u64,
    },
    /// Tell the spool from this byte on, and go on telling it.
    From {
        /// The first is 0.
        byte: u64,
    },
    /// What is to be watched; the first one holds.
    Watch(Box<Watching>),
    /// Read from now on.
    Begin {
        /// Number of the measurement.
        measure: u64,
    },
    /// Read once more, and stop.
    End {
        /// Number of the measurement.
        measure: u64,
    },
    /// Nobody will ask again: seal the spool and end.
    Bye,
}

/// A border of a measurement, which a spool holds as a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Border {
    /// [`Say::Begun`].
    Begun,
    /// [`Say::Ended`].
    Ended,
}

/// From an agent. All but the first three come from its spool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Say {
    /// The first line of every connection.
    Hello {
        /// Number of its protocol.
        protocol: u32,
        /// Its version.
        version: String,
        /// Its pid; absent where it has ended and only its spool is told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
    },
    /// To a ping.
    Pong {
        /// Of the ping.
        n: u64,
        /// When that was there, by the monotonic clock of its machine.
        got: Nanos,
        /// When this left.
        sent: Nanos,
    },
    /// A border of a measurement is not in the spool, which cannot be written at present: nobody needs to
    /// wait for it.
    Unspooled {
        /// Which one.
        border: Border,
        /// Of this measurement.
        measure: u64,
        /// Why.
        why: String,
    },
    /// A measurement was begun: all was read for the first time.
    Begun {
        /// Its number.
        measure: u64,
    },
    /// Readings speak of this device by a number.
    Device {
        /// The number.
        id: u32,
        /// What it is.
        device: Device,
    },
    /// What was read of a device at one time.
    Read {
        /// Its number.
        id: u32,
        /// Before it was asked for, by the monotonic clock of its machine.
        from: Nanos,
        /// After it was there.
        to: Nanos,
        /// What.
        values: BTreeMap<Quantity, f64>,
    },
    /// Something that cannot be read there.
    Absent(Absent),
    /// A measurement was ended: all was read for the last time.
    Ended {
        /// Its number.
        measure: u64,
    },
    /// Nothing will be read any more.
    Sealed {
        /// Why.
        why: String,
    },
}

impl Say {
    /// Whether it is a line of the spool.
    pub const fn is_spooled(&self) -> bool {
        !matches!(self, Self::Hello { .. } | Self::Pong { .. } | Self::Unspooled { .. })
    }
}

/// `message` as a line, with its end.
pub fn line(message: &impl Serialize) -> String {
    // Maps of names and numbers always have a form in JSON; one that had none would be skipped.
    let mut text = serde_json::to_string(message).unwrap_or_default();
    text.push('\n');
    text
}

/// What a line says; nothing where it says nothing that is known here.
pub fn read<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Option<T> {
    serde_json::from_slice(line).ok()
}

/// What has come of an agent so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Received {
    devices: BTreeMap<u32, Device>,
    readings: ByDevice,
    absent: Vec<Absent>,
    begun: Option<u64>,
    ended: Option<u64>,
    sealed: Option<String>,
    /// Bytes of the spool that were seen.
    bytes: u64,
}

impl Received {
    /// Takes one line, without its end. What is none of the spool is given back.
    pub fn take(&mut self, line: &[u8]) -> Option<Say> {
        let said: Option<Say> = read(line);
        if said.as_ref().is_some_and(|say| !say.is_spooled()) {
            return said;
        }
        // A line of the spool that cannot be read was seen all the same.
        self.bytes += line.len() as u64 + 1;
        said.into_iter().for_each(|say| self.keep(say));
        None
    }

    fn keep(&mut self, say: Say) {
        match say {
            Say::Hello { .. } | Say::Pong { .. } | Say::Unspooled { .. } => {}
            Say::Begun { measure } => {
                // What could not be read in a measurement is told with that one.
                if self.ended.is_some() {
                    self.absent.retain(|a| [THE_MACHINE, THE_POD].contains(&a.what.as_str()));
                }
                self.begun = Some(measure);
            }
            Say::Ended { measure } => self.ended = Some(measure),
            Say::Sealed { why } => self.sealed = Some(why),
            Say::Device { id, device } => drop(self.devices.insert(id, device)),
            Say::Absent(absent) if self.absent.contains(&absent) => {}
            Say::Absent(absent) => self.absent.push(absent),
            Say::Read { id, from, to, values } => {
                let Some(device) = self.devices.get(&id).filter(|_| from <= to) else { return };
                let of_device = self.readings.entry(device.clone()).or_default();
                for (quantity, value) in values {
                    of_device.entry(quantity).or_default().push(Reading { from, to, value });
                }
            }
        }
    }

    /// The byte of the spool to go on at.
    pub const fn next_byte(&self) -> u64 {
        self.bytes
    }

    /// Whether measurement `measure` was begun.
    pub fn has_begun(&self, measure: u64) -> bool {
        self.begun == Some(measure)
    }

    /// Whether measurement `measure` was ended, and all of it is here.
    pub fn has_ended(&self, measure: u64) -> bool {
        self.ended == Some(measure)
    }

    /// Why nothing more will come, where the agent said so.
    pub fn sealed(&self) -> Option<&str> {
        self.sealed.as_deref()
    }

    /// What was read since the last time that this was asked, by the clock of its machine.
    pub fn readings(&mut self, interval: Nanos) -> Telemetry {
        let mut series = series_of(std::mem::take(&mut self.readings));
        series.iter_mut().for_each(|s| s.readings.sort_by_key(|r| r.from));
        Telemetry { interval, series, absent: self.absent.clone(), ..Telemetry::default() }
    }
}

#[cfg(test)]
mod tests;
