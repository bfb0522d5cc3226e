import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

/** What one check found. */
export interface Finding {
  /** What was compared. */
  readonly check: string;
  /** With which library's answer. */
  readonly peer: string;
  /** How much was compared, for example `1,216 logits`. */
  readonly compared: string;
  /** Largest absolute difference; 0 where equality is asked for. */
  readonly largest: number;
  /** What the difference may be at most; 0 asks for equality. */
  readonly allowed: number;
}

export const readFindings = (file: string): Finding[] =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Finding)
    .sort((a, b) => (a.check < b.check ? -1 : 1));

/** The Markdown of docs/peer.md. */
export function peerDocument(findings: readonly Finding[], versions: Readonly<Record<string, string>>): string {
  const rows = findings.map(
    ({ check, peer, compared, largest, allowed }) =>
      `| ${check} | ${peer} | ${compared} | ${allowed === 0 ? 'none' : largest.toExponential(1)} | ${allowed === 0 ? 'none' : allowed} |`,
  );
  const used = { ...ownVersions(), ...versions };
  return `# Checked against the libraries that others use

\`npm run test:peer\` writes this file when every check holds. It makes a Python environment in \`.peer/\` from
\`tools/peer/requirements.txt\` (or takes the one whose \`python\` is named in \`PEER_PYTHON\`) and runs \`tests/peer/\`.
\`npm run test:peer -- --light\` does without PyTorch: TensorBoard and the tokenizers only.

Versions: ${Object.entries(used)
    .map(([name, version]) => `${name} ${version}`)
    .join(', ')}.

| check | compared with | how much | largest difference | allowed |
|---|---|---|---|---|
${rows.join('\n')}

What is compared is arithmetic and file formats, not quality: the models are small, and but for the shipped ones their
weights random.
`;
}

function ownVersions(): Record<string, string> {
  const require = createRequire(import.meta.url);
  const { version } = require('onnxruntime-node/package.json') as { version: string };
  return { 'Node.js': process.versions.node, 'onnxruntime-node': version };
}
