// TORCS' own physics, which also tells what the first car does.
//
// A simulation module for TORCS 1.3.7 that hands every call to `simuv2` and sends what whoever
// drives had commanded, and where that took the car, over UDP, in the layout of Codemasters' games.
// So a robot's controls become labels, and a person's or a player's are seen the same way. It may
// also hold the car to a speed, as a limiter does: robots race, at 200 km/h; and push its steering
// now and then, and sometimes stop it, both unsaid, so that the driver's way back to the middle of
// the road and to its speed is seen; and let the game draw no more pictures than are looked at: it
// draws as many as it can, on all cores where there is no GPU.
//
// Environment: TORCS_TELEMETRY_PORTS on this host, as in "20777,20778"; TORCS_SPEED_LIMIT in m/s, 0
// for none; TORCS_PUSHES, mean seconds between two pushes, 0 for none; TORCS_PICTURES, most pictures
// a second, 0 for as many as can be; TORCS_PHYSICS, the path of simuv2.so.

#include <arpa/inet.h>
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <car.h>
#include <raceman.h>
#include <simu.h>
#include <tgf.h>

#include <random>
#include <vector>

namespace {

const int FIELDS = 66;  // 264 bytes, as DiRT Rally sends them
const double PERIOD_S = 0.01;
const double DRAWS_S = 0.002;  // less than a picture takes, more than a driver's turn
const float GAIN = 0.5f;  // pedal per m/s under the limit

tSimItf physics;
int (*physics_init)(int, void *);
int sender = -1;
std::vector<sockaddr_in> receivers;
float limit_mps, pushes_s, pictures_hz;
double due_s;
std::mt19937 chance(0);

struct Command {
    float steer, throttle, brake;
    bool operator==(const Command &other) const {
        return steer == other.steer && throttle == other.throttle && brake == other.brake;
    }
};
Command commanded, applied;

// Something that is done to the car now and then, for a while.
struct Push {
    double mean_s, least_s, most_s;
    double begins_s, ends_s;
    float strength;

    bool is_on(double now_s) {
        if (now_s > ends_s) {
            begins_s = now_s + std::exponential_distribution<double>(1.0 / mean_s)(chance);
            ends_s = begins_s + std::uniform_real_distribution<double>(least_s, most_s)(chance);
            strength = std::normal_distribution<float>(0.0f, 0.3f)(chance);
        }
        return now_s > begins_s;
    }
};
Push aside = {4.0, 0.2, 0.7, 0.0, 0.0, 0.0f}, halt = {25.0, 2.0, 3.0, 0.0, 0.0, 0.0f};

void send_packet(const tCarElt *car, double now_s) {
    float field[FIELDS] = {};
    field[0] = static_cast<float>(now_s);
    field[2] = car->_distFromStartLine;
    field[3] = car->_distRaced;
    field[4] = car->_pos_X;
    field[5] = car->_pos_Z;
    field[6] = car->_pos_Y;
    field[7] = car->pub.speed;
    field[29] = fminf(commanded.throttle, 1.0f);  // robots ask for more
    field[30] = -commanded.steer;  // TORCS counts to the left
    field[31] = fminf(commanded.brake, 1.0f);
    // DiRT sends other things here: where the wheels are, which turn at most so fast, as a share of
    // their lock; metres from the road's middle, its width, damage.
    field[62] = -car->priv.wheel[FRNT_RGT].relPos.az / car->_steerLock;
    field[63] = car->_trkPos.toMiddle;
    field[64] = car->_trkPos.seg ? car->_trkPos.seg->width : 0.0f;
    field[65] = static_cast<float>(car->_dammage);
    for (const sockaddr_in &receiver : receivers)
        sendto(sender, field, sizeof field, 0, reinterpret_cast<const sockaddr *>(&receiver),
               sizeof receiver);
}

// Drivers say what they want every 20 ms, physics runs every 2 ms: what is not ours is theirs.
void drive(tCarElt *car, double now_s) {
    const Command found = {car->_steerCmd, car->_accelCmd, car->_brakeCmd};
    static Command theirs;
    if (!(found == applied)) theirs = found;
    commanded = theirs;
    if (limit_mps > 0.0f) {
        const float most = (limit_mps - car->_speed_x) * GAIN;
        commanded.throttle = fminf(theirs.throttle, fmaxf(most, 0.0f));
    }
    applied = commanded;
    if (pushes_s > 0.0f) {
        if (aside.is_on(now_s))
            applied.steer = fmaxf(-1.0f, fminf(1.0f, commanded.steer + aside.strength));
        if (halt.is_on(now_s)) applied.throttle = 0.0f, applied.brake = 1.0f;
    }
    car->_steerCmd = applied.steer;
    car->_accelCmd = applied.throttle;
    car->_brakeCmd = applied.brake;
}

double clock_s() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

// The game goes through all steps that are due, 2 ms each and done in far less, then draws: a call
// that comes long after the last one ended is the first after a picture.
void wait_for_next_picture() {
    static double last_call_s, picture_s;
    const double now_s = clock_s(), wait_s = picture_s + 1.0 / pictures_hz - now_s;
    if (now_s - last_call_s > DRAWS_S) {
        const timespec wait = {0, static_cast<long>(1e9 * fmax(wait_s, 0.0))};
        nanosleep(&wait, nullptr);
        picture_s = clock_s();
    }
    last_call_s = clock_s();
}

void update(tSituation *situation, double step_s, int telemetry) {
    const double now_s = situation->currentTime;
    if (pictures_hz > 0.0f) wait_for_next_picture();
    if (situation->raceInfo.ncars > 0) {
        tCarElt *car = situation->cars[0];
        if (now_s < due_s - 1.0) due_s = aside.ends_s = halt.ends_s = now_s;  // it began anew
        drive(car, now_s);
        if (sender >= 0 && now_s >= due_s) {
            send_packet(car, now_s);
            due_s = now_s + PERIOD_S;
        }
    }
    physics.update(situation, step_s, telemetry);
}

int init(int index, void *itf) {
    const int result = physics_init(index, itf);
    tSimItf *interface = static_cast<tSimItf *>(itf);
    physics = *interface;
    interface->update = update;
    return result;
}

float number(const char *name) {
    const char *text = getenv(name);
    return text ? static_cast<float>(atof(text)) : 0.0f;
}

void read_receivers(const char *ports) {
    sender = socket(AF_INET, SOCK_DGRAM, 0);
    for (const char *port = ports; port; port = strchr(port, ',')) {
        if (*port == ',') ++port;
        sockaddr_in receiver = {};
        receiver.sin_family = AF_INET;
        receiver.sin_port = htons(static_cast<unsigned short>(atoi(port)));
        receiver.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        receivers.push_back(receiver);
    }
}

}  // namespace

extern "C" int told(tModInfo *info) {
    void *library = dlopen(getenv("TORCS_PHYSICS"), RTLD_NOW);
    if (!library) return -1;
    tfModInfo entry = reinterpret_cast<tfModInfo>(dlsym(library, "simuv2"));
    if (!entry || entry(info) != 0) return -1;
    physics_init = info->fctInit;
    info->fctInit = init;
    limit_mps = number("TORCS_SPEED_LIMIT");
    aside.mean_s = pushes_s = number("TORCS_PUSHES");
    pictures_hz = number("TORCS_PICTURES");
    if (sender < 0) read_receivers(getenv("TORCS_TELEMETRY_PORTS"));
    return 0;
}
