import { execFile } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'vitest';
import type { Finding } from '../../../tools/peer/document.js';

const run = promisify(execFile);

/** What a script of tests/peer/python prints, which is JSON. */
export async function python(script: string, ...argv: readonly string[]): Promise<unknown> {
  const command = process.env['PEER_PYTHON'];
  if (command === undefined) throw new Error('run these checks with npm run test:peer, which provides a Python');
  const file = fileURLToPath(new URL(`../python/${script}.py`, import.meta.url));
  const offline = { HF_HUB_OFFLINE: '1', TRANSFORMERS_VERBOSITY: 'error', TOKENIZERS_PARALLELISM: 'false' };
  const { stdout } = await run(command, [file, ...argv], {
    env: { ...process.env, ...offline, OMP_NUM_THREADS: '1', PYTHONIOENCODING: 'utf-8' },
    maxBuffer: 1 << 28,
  });
  return JSON.parse(stdout);
}

/** Expects the difference to be within what is allowed, and keeps it for docs/peer.md. */
export function find(finding: Finding): void {
  expect(finding.largest, finding.check).toBeLessThanOrEqual(finding.allowed);
  const file = process.env['PEER_FINDINGS'];
  if (file !== undefined) appendFileSync(file, `${JSON.stringify(finding)}\n`);
}

/** `1216` as `1,216`. */
export const count = (n: number): string => n.toLocaleString('en');
