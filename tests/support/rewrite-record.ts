import { readFileSync, writeFileSync } from 'node:fs';
import { type CheckpointRecord, encodeRecord } from '../../src/runs/checkpoint-state.js';

/** Changes what a checkpoint's `state.json` says and makes its checksum true again: the file is whole, but of another. */
export function rewriteRecord(path: string, changes: Partial<Record<keyof CheckpointRecord, unknown>>): void {
  const { formatVersion, stage, step, best, anchor, fingerprints, state, files } = JSON.parse(
    readFileSync(path, 'utf8'),
  ) as CheckpointRecord;
  writeFileSync(
    path,
    encodeRecord({ formatVersion, stage, step, best, anchor, fingerprints, state, files, ...changes }),
  );
}
