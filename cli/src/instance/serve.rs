//! Answering from recordings: the backend is told what to answer from, and the
//! capture filters are reloaded so that they ask it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::running::{Instance, Slot};
use crate::backend::{Filter, Serving, case};
use crate::bundle;
use crate::error::{Error, Result};

/// Whose requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Answered {
    /// Those of the service to others.
    Outbound,
    /// Those to the service.
    Inbound,
    Both,
}

/// What to answer from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServeRequest {
    /// None: the captured exchanges that `filter` chooses.
    pub case: Option<PathBuf>,
    pub filter: Filter,
    /// Add what the real upstream answers.
    pub learn: bool,
    pub answered: Answered,
}

impl Answered {
    /// As the filter's `inject.direction` spells it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Both => "both",
        }
    }
}

impl Instance {
    /// Begins to answer; on an error nothing is answered.
    pub async fn serve(&self, request: ServeRequest) -> Result<Serving> {
        let backend = self.backend()?;
        let mut plugins = self.plugins.lock().await;
        if !plugins.iter().any(Slot::is_capture) {
            return Err(Error::Usage("no capture filter runs here: nobody would ask for recorded answers".into()));
        }
        let has_outbound = self.harness.addresses().outbound.is_some();
        if request.answered == Answered::Outbound && !has_outbound && self.spec.bootstrap.is_none() {
            return Err(Error::Usage(
                "this instance has no outbound listener: `--answer inbound` answers those who call the service".into(),
            ));
        }
        let (answers, store) = (backend.answers.clone(), backend.store.clone());
        let ServeRequest { case, filter, learn, answered } = request;
        let work = tokio::task::spawn_blocking(move || match case {
            Some(path) => Ok(answers.serve_case(case::read(&path)?, learn)),
            None => answers.serve_captures(&store, &filter, learn),
        });
        let serving = work.await.map_err(|e| Error::Instance { reason: e.to_string() })??;
        if let Err(error) = self.ask(&mut plugins, Some(answered)).await {
            backend.answers.stop();
            return Err(error);
        }
        Ok(serving)
    }

    /// Answers nothing any more; what was served, if anything.
    pub async fn stop_serving(&self) -> Result<Option<Serving>> {
        let served = self.backend()?.answers.stop();
        self.ask(&mut self.plugins.lock().await, None).await?;
        Ok(served)
    }

    /// Makes the capture filters ask, or stop asking.
    async fn ask(&self, plugins: &mut [Slot], inject: Option<Answered>) -> Result<()> {
        for slot in plugins.iter_mut().filter(|slot| slot.is_capture() && slot.load.inject != inject) {
            let load = super::plan::Load { number: slot.load.number + 1, inject, ..slot.load };
            self.replace(slot, slot.spec.clone(), slot.loaded.clone(), load).await?;
        }
        Ok(())
    }
}

impl Slot {
    fn is_capture(&self) -> bool {
        bundle::is_capture(&self.loaded.module)
    }
}
