package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/upkeep"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// keyService is coatcheck.v1.KeyService.
type keyService struct {
	coatcheckv1.UnimplementedKeyServiceServer
	keys   *keystore.Keystore
	store  tokenizer.Store
	upkeep *upkeep.Upkeep
	log    *slog.Logger
}

// ListKeys reads the shelf.
func (k *keyService) ListKeys(ctx context.Context, _ *coatcheckv1.ListKeysRequest) (*coatcheckv1.ListKeysResponse, error) {
	callFrom(ctx).event.Namespace = DefaultNamespace
	keys, err := k.keys.Keys(ctx, DefaultNamespace)
	if err != nil {
		return nil, err
	}
	ring := k.ring(ctx)
	resp := &coatcheckv1.ListKeysResponse{Resealing: k.resealing(keys)}
	for _, key := range keys {
		resp.Keys = append(resp.Keys, keyMessage(key, ring))
	}
	status := k.keys.Status()
	resp.KeystoreState = states[status.State]
	if !status.Confirmed.IsZero() {
		resp.ConfirmTime = timestamppb.New(status.Confirmed)
	}
	if status.State == keystore.Offline {
		resp.SealTime = timestamppb.New(status.Until)
	}
	return resp, nil
}

// RotateKey prepares a version; the chain commits it.
func (k *keyService) RotateKey(ctx context.Context, req *coatcheckv1.RotateKeyRequest) (*coatcheckv1.RotateKeyResponse, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	class, ok := classes[req.GetKeyClass()]
	if !ok {
		return nil, errKeyClass
	}
	if err := k.expect(ctx, class, req.GetActiveVersion()); err != nil {
		return nil, err
	}
	key, err := k.keys.NewVersion(ctx, DefaultNamespace, class)
	if err != nil {
		return nil, err
	}
	made, err := k.keys.Describe(key)
	if err != nil {
		return nil, err
	}
	c.event.Keys = []string{upkeep.KeyName(key.ID())}
	c.unit.Keys = []keystore.WrappedKey{key}
	c.after = k.reload
	return &coatcheckv1.RotateKeyResponse{Key: keyMessage(made, nil)}, nil
}

// expect refuses a rotation whose caller thinks that another version is active.
func (k *keyService) expect(ctx context.Context, class keystore.Class, version uint32) error {
	if version == 0 {
		return nil
	}
	keys, err := k.keys.Keys(ctx, DefaultNamespace)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if key.Class == class && key.Active && key.Version != version {
			return keystore.ErrKeyChanged
		}
	}
	return nil
}

// MaxRate is how many records a second Rewrap can be asked to move at most.
const MaxRate = 1_000_000

// Rewrap prepares the keys, and sets the records off once the keys are
// committed.
func (k *keyService) Rewrap(ctx context.Context, req *coatcheckv1.RewrapRequest) (*coatcheckv1.RewrapResponse, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	if req.GetRecordsPerSecond() > MaxRate {
		return nil, errRate
	}
	changes, err := k.keys.Rewrap(ctx, DefaultNamespace)
	if err != nil {
		return nil, err
	}
	keys, err := k.keys.Keys(ctx, DefaultNamespace)
	if err != nil {
		return nil, err
	}
	before := make(map[keystore.KeyID]keystore.ShelvedKey, len(keys))
	for _, key := range keys {
		before[key.ID()] = key
	}
	ring := k.ring(ctx)
	resp := &coatcheckv1.RewrapResponse{Resealing: k.resealing(keys)}
	for _, change := range changes {
		key, err := k.keys.Describe(change.New)
		if err != nil {
			return nil, err
		}
		key.Active, key.Count = before[key.ID()].Active, before[key.ID()].Count
		c.event.Keys = append(c.event.Keys, upkeep.KeyName(key.ID()))
		resp.Rewrapped = append(resp.Rewrapped, keyMessage(key, ring))
	}
	c.unit.Rewraps = changes
	c.after = func(ctx context.Context) {
		if len(changes) > 0 {
			k.reload(ctx)
		}
		if !req.GetKeysOnly() {
			k.upkeep.Reseal(int(req.GetRecordsPerSecond()))
		}
	}
	resp.Resealing.Running = resp.Resealing.Running || resp.Resealing.Remaining > 0 && !req.GetKeysOnly()
	return resp, nil
}

// RetireKey looks whether the key can go; the commit looks again, and decides.
func (k *keyService) RetireKey(ctx context.Context, req *coatcheckv1.RetireKeyRequest) (*coatcheckv1.RetireKeyResponse, error) {
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	class, ok := classes[req.GetKeyClass()]
	if !ok {
		return nil, errKeyClass
	}
	c.event.ValidateOnly = req.GetValidateOnly()
	c.event.Keys = []string{upkeep.KeyName(keystore.KeyID{Class: class, Version: req.GetVersion()})}
	keys, err := k.keys.Keys(ctx, DefaultNamespace)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if key.Class != class || key.Version != req.GetVersion() {
			continue
		}
		if err := inUse(key); err != nil {
			return nil, err
		}
		// The census says so; but there is no way back, so look.
		if under, err := k.store.Under(ctx, key.ID()); err != nil {
			return nil, err
		} else if under {
			return nil, fmt.Errorf("%w: a record is under %v, and the census has none", tokenizer.ErrDamaged, key)
		}
		if !req.GetValidateOnly() {
			c.unit.Retire = key.ID()
			c.after = k.reload
		}
		return &coatcheckv1.RetireKeyResponse{Key: keyMessage(key, k.ring(ctx))}, nil
	}
	return nil, errKeyNotFound
}

// inUse says why a key can't be retired, as far as is known before the commit.
func inUse(key keystore.ShelvedKey) error {
	switch {
	case key.Class == keystore.FPE:
		return errKeyUncounted
	case key.Class.Permanent():
		return errKeyNamedForEver
	case key.Active:
		return errKeyActive
	case key.Count.Records > 0 && key.Class == keystore.Token:
		return errKeyHasTokens
	case key.Count.Records > 0 && key.Class != keystore.Data:
		return errKeyHasIndex
	case key.Count.Records > 0:
		return errKeyHasRecords
	}
	return nil
}

// reloadTimeout is how long an answer waits for keys that have changed.
const reloadTimeout = 5 * time.Second

// reload takes over keys that have just been committed. If that fails, it
// happens with the next lease.
func (k *keyService) reload(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	if err := k.keys.Reload(ctx, DefaultNamespace); err != nil && !errors.Is(err, keystore.ErrSealed) {
		k.log.Warn("keys have changed and can't be read now", "error", err)
	}
	k.upkeep.Wake()
}

// ring returns the keyring, which knows of uses that are not stored yet; nil while
// the keys are sealed.
func (k *keyService) ring(ctx context.Context) *keystore.Keyring {
	if k.keys.Usable(ctx) != nil {
		return nil
	}
	ring, err := k.keys.Keyring(ctx, DefaultNamespace)
	if err != nil {
		return nil
	}
	return ring
}

// resealing tells of the records on the move.
func (k *keyService) resealing(keys []keystore.ShelvedKey) *coatcheckv1.Resealing {
	p := k.upkeep.Progress()
	m := &coatcheckv1.Resealing{
		Running: p.Running, Remaining: upkeep.Remaining(keys), Moved: p.Moved, Failed: p.Failed, RecordsPerSecond: uint32(p.Rate),
	}
	if !p.Began.IsZero() {
		m.StartTime = timestamppb.New(p.Began)
	}
	return m
}

// keyMessage describes a key. ring, if there is one, knows of uses that are not
// stored yet.
func keyMessage(key keystore.ShelvedKey, ring *keystore.Keyring) *coatcheckv1.Key {
	m := &coatcheckv1.Key{
		KeyClass: classMessages[key.Class], Version: key.Version, CreateTime: timestamppb.New(key.Created),
		State: coatcheckv1.KeyState_KEY_STATE_OLD, RootVersion: key.RootVersion,
		Records: key.Count.Records, Uses: key.Count.Sealed, Retirable: inUse(key) == nil,
	}
	if key.Active {
		m.State = coatcheckv1.KeyState_KEY_STATE_ACTIVE
	}
	if key.Class == keystore.Data && ring != nil {
		m.Uses = max(m.Uses, ring.Uses(key.Version))
	}
	return m
}

// classes maps the API's classes to those of the keystore.
var classes = map[coatcheckv1.KeyClass]keystore.Class{
	coatcheckv1.KeyClass_KEY_CLASS_DATA:    keystore.Data,
	coatcheckv1.KeyClass_KEY_CLASS_TOKEN:   keystore.Token,
	coatcheckv1.KeyClass_KEY_CLASS_INDEX:   keystore.Index,
	coatcheckv1.KeyClass_KEY_CLASS_SUBJECT: keystore.Subject,
	coatcheckv1.KeyClass_KEY_CLASS_AUDIT:   keystore.Audit,
	coatcheckv1.KeyClass_KEY_CLASS_FPE:     keystore.FPE,
}

// classMessages is the other way round.
var classMessages = func() map[keystore.Class]coatcheckv1.KeyClass {
	m := make(map[keystore.Class]coatcheckv1.KeyClass, len(classes))
	for message, class := range classes {
		m[class] = message
	}
	return m
}()

// states maps the keystore's states to the API's.
var states = map[keystore.State]coatcheckv1.KeystoreState{
	keystore.Ready:   coatcheckv1.KeystoreState_KEYSTORE_STATE_READY,
	keystore.Offline: coatcheckv1.KeystoreState_KEYSTORE_STATE_OFFLINE,
	keystore.Sealed:  coatcheckv1.KeystoreState_KEYSTORE_STATE_SEALED,
}
