import type { Diagnosis, Examined } from '../../doctor/doctor.js';
import type { Machine } from '../../doctor/machine.js';
import type { StagePlan } from '../../doctor/stages.js';

/** A diagnosis for people. */
export function showDiagnosis({ machine, recipes }: Diagnosis): string {
  const lines = [...showMachine(machine), ...recipes.flatMap((each) => ['', ...showRecipe(each, machine)])];
  return lines.join('\n');
}

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2)} GiB`;

function showMachine(machine: Machine): string[] {
  const { versions, features } = machine;
  const others = machine.providers.filter((name) => !machine.devices.includes(name));
  return [
    `duanzi ${versions.duanzi}, Node.js ${versions.node}, ONNX Runtime ${versions.onnxruntime ?? '(not installed)'}`,
    `System:   ${machine.system}`,
    `CPU:      ${machine.cpu}, ${machine.cores} cores${features === undefined ? '' : `, ${features.join(', ')}`}`,
    `Memory:   ${gib(machine.availableBytes)} available of ${gib(machine.memoryBytes)}`,
    `Devices:  ${machine.devices.join(', ')}${others.length === 0 ? '' : ` (the runtime also knows ${others.join(', ')})`}`,
    ...machine.disks.map(({ name, path, freeBytes }) => `Disk:     ${gib(freeBytes)} free for ${name}, ${path}`),
  ];
}

function showRecipe({ recipe, stages }: Examined, { availableBytes }: Machine): string[] {
  return [recipe, ...stages.flatMap((stage) => showStage(stage, availableBytes))];
}

function showStage(planned: StagePlan, available: number): string[] {
  const name = planned.stage.padEnd(11);
  if ('unknown' in planned) return [`  ${name} not known: ${planned.unknown}`];
  const { plan, ways } = planned;
  const fits = plan.bytes <= available;
  const largest = [...plan.parts].sort((a, b) => b.bytes - a.bytes).filter(({ bytes }) => bytes > 0.01 * plan.bytes);
  return [
    `  ${name} ${gib(plan.bytes)} of memory at most: ${fits ? 'fits' : `does not fit, ${gib(plan.bytes - available)} too much`}`,
    ...largest.map((part) => `    ${gib(part.bytes).padStart(10)}  ${part.name}`),
    ...(fits
      ? []
      : ways.map(
          ({ settings, bytes }) => `    less: ${gib(bytes)} with ${settings.map((each) => `--set ${each}`).join(' ')}`,
        )),
  ];
}
