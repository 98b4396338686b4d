package bench

import (
	"os/exec"
	"syscall"
)

// endWithUs has a process end when this one does, however it ends. The kernel looks at
// the thread that starts it, which is one of those that live as long as the process.
func endWithUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
