//! A key and a certificate for the peers, which sign as S/MIME does.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs;

/// Made anew for each comparison.
#[derive(Debug)]
pub(super) struct Credentials {
    openssl: PathBuf,
    key: PathBuf,
    certificate: PathBuf,
}

impl Credentials {
    pub(super) fn make(openssl: &Path, folder: &Path) -> anyhow::Result<Self> {
        let credentials = Self {
            openssl: openssl.to_owned(),
            key: folder.join("peer.key"),
            certificate: folder.join("peer.pem"),
        };
        let _: String = programs::call(
            Command::new(openssl)
                .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes"])
                .args(["-days", "30", "-subj", "/CN=rekindle-bench"])
                .args(["-addext", "keyUsage=digitalSignature"])
                .args(["-addext", "extendedKeyUsage=emailProtection"])
                .arg("-keyout")
                .arg(&credentials.key)
                .arg("-out")
                .arg(&credentials.certificate),
        )?;
        Ok(credentials)
    }

    pub(super) fn key(&self) -> &Path {
        &self.key
    }

    pub(super) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// A signature apart from what it signs, in a CMS message.
    pub(super) fn sign(&self, file: &Path, signature: &Path) -> anyhow::Result<()> {
        let _: String = programs::call(
            Command::new(&self.openssl)
                .args(["cms", "-sign", "-binary", "-nosmimecap", "-outform", "DER"])
                .arg("-in")
                .arg(file)
                .arg("-out")
                .arg(signature)
                .arg("-signer")
                .arg(&self.certificate)
                .arg("-inkey")
                .arg(&self.key),
        )?;
        Ok(())
    }
}
