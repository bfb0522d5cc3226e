/**
 * `npm run test:peer [-- --light]`: holds what duanzi writes and reads against the Python libraries that others use.
 *
 * Exit codes: 0 when all agree, 1 when something differs, 3 when this machine cannot run the checks. A full run writes
 * docs/peer.md.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { peerPython, peerVersions, Unavailable } from './environment.js';
import { peerDocument, readFindings } from './document.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const light = process.argv.includes('--light');

try {
  process.exitCode = runChecks(peerPython(light));
} catch (error) {
  if (!(error instanceof Unavailable)) throw error;
  console.error(`test:peer cannot run here: ${error.message}`);
  process.exitCode = 3;
}

function runChecks(python: string): number {
  const folder = mkdtempSync(path.join(tmpdir(), 'peer-'));
  const findings = path.join(folder, 'findings.jsonl');
  const vitest = path.join(path.dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs');
  try {
    const { status } = spawnSync(
      process.execPath,
      [vitest, 'run', '--config', 'tests/peer/vitest.config.ts', ...(light ? ['tests/peer/light'] : [])],
      { cwd: root, stdio: 'inherit', env: { ...process.env, PEER_PYTHON: python, PEER_FINDINGS: findings } },
    );
    if (status !== 0) return 1;
    if (!light) {
      writeFileSync(path.join(root, 'docs/peer.md'), peerDocument(readFindings(findings), peerVersions(python)));
      console.error('docs/peer.md is written.');
    }
    return 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
