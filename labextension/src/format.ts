import { IEntity } from './request';

/** The state of a packaging. */
export function stateOf(packaging: IEntity): string {
  return packaging.status?.state || 'unknown';
}

/** A result of a packaging, or an empty text. */
export function resultOf(packaging: IEntity, name: string): string {
  return packaging.status?.results?.find(result => result.name === name)?.value ?? '';
}

/** The age of a time in its largest unit. */
export function ageOf(time: string | undefined, now = Date.now()): string {
  const seconds = Math.max(0, Math.round((now - Date.parse(time ?? '')) / 1000));
  if (Number.isNaN(seconds)) {
    return '';
  }
  const units: [number, string][] = [
    [86400, 'd'],
    [3600, 'h'],
    [60, 'min']
  ];
  const [size, unit] = units.find(([size]) => seconds >= size) ?? [1, 's'];
  return `${Math.floor(seconds / size)} ${unit}`;
}
