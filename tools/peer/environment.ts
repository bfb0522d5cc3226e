import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const venv = path.join(root, '.peer');

/** A reason for which the checks cannot run on this machine, in one line for a person. */
export class Unavailable extends Error {}

/**
 * The Python to check against: that of PEER_PYTHON as it is, else that of `.peer/`, a virtual environment which is made
 * and filled from tools/peer/requirements*.txt when it is not there yet.
 *
 * @throws Unavailable without a Python that can, or when the packages cannot be installed
 */
export function peerPython(light: boolean): string {
  const given = process.env['PEER_PYTHON'];
  if (given !== undefined) {
    if (!canRun(given, ['-c', ''])) throw new Unavailable(`PEER_PYTHON (${given}) does not run.`);
    return given;
  }
  const python = path.join(venv, process.platform === 'win32' ? 'Scripts/python.exe' : 'bin/python');
  const mark = path.join(venv, 'installed.txt');
  const wanted = requirements(light);
  const present = existsSync(mark) ? readFileSync(mark, 'utf8') : '';
  if (present === wanted || present === requirements(false)) return python;

  if (!existsSync(python)) makeEnvironment();
  console.error(
    light
      ? 'Installing TensorBoard and tokenizers into .peer/ …'
      : 'Installing PyTorch, transformers and PEFT into .peer/; with the CUDA libraries that PyTorch brings along these are about 3 GB to fetch and 5 GB on the disk …',
  );
  const file = path.join(root, 'tools/peer', light ? 'requirements-light.txt' : 'requirements.txt');
  const { status } = spawnSync(python, ['-m', 'pip', 'install', '--quiet', '-r', file], { stdio: 'inherit' });
  if (status !== 0) throw new Unavailable('pip could not install the packages; is the network there?');
  writeFileSync(mark, wanted);
  return python;
}

/** The versions of Python and of the packages, by their names. */
export function peerVersions(python: string): Record<string, string> {
  const names = [...requirements(false).matchAll(/^([\w-]+)==/gmu)].map(([, name]) => name!);
  const script = [
    'import json, platform, sys',
    'from importlib.metadata import version',
    'print(json.dumps({"Python": platform.python_version(), **{name: version(name) for name in sys.argv[1:]}}))',
  ].join('\n');
  return JSON.parse(execFileSync(python, ['-c', script, ...names], { encoding: 'utf8' })) as Record<string, string>;
}

function makeEnvironment(): void {
  const check = 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))';
  const found = ['python3.11', 'python3.12', 'python3.13', 'python3', 'python'].find((name) =>
    canRun(name, ['-c', check]),
  );
  if (found === undefined) {
    throw new Unavailable(
      'There is no Python 3.11 or later with venv and pip; install one, or name one in PEER_PYTHON.',
    );
  }
  rmSync(venv, { recursive: true, force: true });
  if (!canRun(found, ['-m', 'venv', venv])) throw new Unavailable(`${found} -m venv fails.`);
}

const canRun = (command: string, argv: readonly string[]): boolean =>
  spawnSync(command, argv, { stdio: 'ignore' }).status === 0;

/** The pins, with the files that are included. */
function requirements(light: boolean): string {
  const read = (name: string): string => readFileSync(path.join(root, 'tools/peer', name), 'utf8');
  const small = read('requirements-light.txt');
  return light ? small : read('requirements.txt') + small;
}
