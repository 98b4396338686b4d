package server

import (
	"context"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
)

// GetCheckpoint returns the latest checkpoint.
func (s *auditService) GetCheckpoint(context.Context, *coatcheckv1.GetCheckpointRequest) (*coatcheckv1.GetCheckpointResponse, error) {
	c, text, key, err := s.notary.Latest()
	if err != nil {
		return nil, err
	}
	return &coatcheckv1.GetCheckpointResponse{Checkpoint: string(text), PublicKey: key, Events: c.Events, SignTime: timestamppb.New(c.Time)}, nil
}

// GetProof proves what is asked for.
func (s *auditService) GetProof(_ context.Context, req *coatcheckv1.GetProofRequest) (*coatcheckv1.GetProofResponse, error) {
	if req.GetSequence() == 0 && req.GetOldEvents() == 0 {
		return nil, audit.ErrNoProof
	}
	p, err := s.notary.Prove(req.GetEvents(), req.GetSequence(), req.GetOldEvents())
	if err != nil {
		return nil, err
	}
	resp := &coatcheckv1.GetProofResponse{
		Events: p.Events, RootHash: p.Root[:], Inclusion: hashBytes(p.Inclusion), Consistency: hashBytes(p.Consistency),
	}
	if p.Event > 0 {
		resp.LeafHash = p.Leaf[:]
	}
	if p.Old > 0 {
		resp.OldRootHash = p.OldRoot[:]
	}
	return resp, nil
}

// hashBytes returns hashes as they are in messages.
func hashBytes(hashes []tlog.Hash) [][]byte {
	list := make([][]byte, len(hashes))
	for i := range hashes {
		list[i] = hashes[i][:]
	}
	return list
}
