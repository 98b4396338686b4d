package sink

import (
	"fmt"
	"syscall"
	"unsafe"
)

// unacknowledged returns how many bytes the other side's machine hasn't acknowledged yet,
// the end of the connection included. Whoever closes a socket acknowledges nothing that
// comes after. The error is what the connection has failed with.
func unacknowledged(conn socket) (n int, err error) {
	withFD, ok := conn.(syscall.Conn)
	if !ok {
		return 0, nil
	}
	rawConn, err := withFD.SyscallConn()
	if err != nil {
		return 0, err
	}
	var queued int32
	var fault error
	err = rawConn.Control(func(fd uintptr) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&queued))); errno != 0 {
			fault = fmt.Errorf("ioctl: %w", errno)
			return
		}
		if code, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR); err == nil && code != 0 {
			fault = syscall.Errno(code)
		}
	})
	if err != nil {
		return 0, err
	}
	return int(queued), fault
}
