//! The update server as a library: scripts, firmware and configuration backups over HTTP.
